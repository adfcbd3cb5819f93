/* The hot inner part of the data path in C: what a native part would buy. Built and measured by bench_native.py alone;
 * the product has no use for it.
 *
 *     row: packet (n)      slot: header (4)   packet id (4)   tag (16)   ciphertext (n)
 *
 * One call seals or opens many packets of one size under one AES-256-GCM key, with one context of libcrypto's EVP. Says the
 * same, octet for octet, as vpn/dataplane/cipher_rows.py. Sources: EVP_EncryptInit(3), openvpn-protocol.md section 7.1
 */
#include <openssl/evp.h>
#include <stdint.h>
#include <string.h>

enum { HEADER = 4, CLEAR = 8, TAG = 16, BODY = CLEAR + TAG, NONCE = 12 };

EVP_CIPHER_CTX *key_new(const uint8_t *key, int seals) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (context && EVP_CipherInit_ex(context, EVP_aes_256_gcm(), NULL, key, NULL, seals) == 1)
        return context;
    EVP_CIPHER_CTX_free(context);
    return NULL;
}

void key_free(EVP_CIPHER_CTX *context) { EVP_CIPHER_CTX_free(context); }

static void write_id(uint8_t *at, uint32_t id) {
    at[0] = id >> 24, at[1] = id >> 16, at[2] = id >> 8, at[3] = id;
}

/* The packets of `count` rows into slots that follow each other. 0: done; else nothing of `out` is of any use. */
int seal_rows(EVP_CIPHER_CTX *context, const uint8_t *rows, size_t stride, int octets, int count, const uint8_t *header,
              uint32_t first_id, const uint8_t *implicit_iv, uint8_t *out) {
    uint8_t nonce[NONCE];
    int done;
    memcpy(nonce + 4, implicit_iv, NONCE - 4);
    for (int row = 0; row < count; row++, rows += stride, out += BODY + octets) {
        write_id(nonce, first_id + row);
        memcpy(out, header, HEADER);
        memcpy(out + HEADER, nonce, 4);
        if (EVP_EncryptInit_ex(context, NULL, NULL, NULL, nonce) != 1 ||
            EVP_EncryptUpdate(context, NULL, &done, out, CLEAR) != 1 ||
            EVP_EncryptUpdate(context, out + BODY, &done, rows, octets) != 1 ||
            EVP_EncryptFinal_ex(context, out + BODY + octets, &done) != 1 ||
            EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG, out + CLEAR) != 1)
            return -1;
    }
    return 0;
}

/* The reverse; `ids` are those of the packets. -1: one of them is not authentic, and nothing of `rows` may be used. */
int open_rows(EVP_CIPHER_CTX *context, const uint8_t *slots, int octets, int count, const uint8_t *implicit_iv,
              uint8_t *rows, size_t stride, uint32_t *ids) {
    uint8_t nonce[NONCE], tag[TAG];
    int done;
    memcpy(nonce + 4, implicit_iv, NONCE - 4);
    for (int row = 0; row < count; row++, rows += stride, slots += BODY + octets) {
        memcpy(nonce, slots + HEADER, 4);
        memcpy(tag, slots + CLEAR, TAG);
        ids[row] = (uint32_t)nonce[0] << 24 | (uint32_t)nonce[1] << 16 | (uint32_t)nonce[2] << 8 | nonce[3];
        if (EVP_DecryptInit_ex(context, NULL, NULL, NULL, nonce) != 1 ||
            EVP_DecryptUpdate(context, NULL, &done, slots, CLEAR) != 1 ||
            EVP_DecryptUpdate(context, rows, &done, slots + BODY, octets) != 1 ||
            EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG, tag) != 1 ||
            EVP_DecryptFinal_ex(context, rows + octets, &done) != 1)
            return -1;
    }
    return 0;
}
