"""One key id's handshake: reset, TLS, key-method-2, then a stream of control messages.

    AWAIT_RESET --reset--> TLS --complete--> KEY_MESSAGE --peer's key message--> DECISION --own answer--> ESTABLISHED

A TLS server may take its time to answer: until then the client cannot use the key, so that none of its packets come
before the server may open them. A session has one of these for its first key and one for every renegotiation. Holds
the reliability layer's two windows and the TLS end; knows neither addresses nor the packets' protection: bodies in,
bodies out.

Sources: openvpn-protocol.md sections 2, 4, 5 and 13.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vpn.drops import Drop
from vpn.events import RefusalReason
from vpn.reliable.acks import ACKS_IN_ACK, ACKS_IN_CONTROL, AckLedger
from vpn.reliable.receive import Message, ReceiveWindow, Verdict
from vpn.reliable.send import SendWindow
from vpn.tls import TlsEnd, TlsFailed
from vpn.wire.control import ControlBody
from vpn.wire.early import EarlyFlags
from vpn.wire.key_method import KeyMessage
from vpn.wire.message import build_message, parse_messages
from vpn.wire.packet import CLIENT_RESETS, KeyId, Malformed, Opcode, SessionId


class State(Enum):
    AWAIT_RESET = "awaiting the other end's reset"
    TLS = "TLS handshake"
    KEY_MESSAGE = "awaiting the other end's key message"
    DECISION = "awaiting the decision about the other end's credentials"
    ESTABLISHED = "established"
    FAILED = "failed"


class Input(Enum):
    RESET = "reset received"
    TLS_COMPLETE = "TLS handshake complete"
    PEER_KEY_MESSAGE = "key message received"
    ANSWER = "key message answered"
    FAILURE = "failure"


TRANSITIONS: dict[tuple[State, Input], State] = {
    (State.AWAIT_RESET, Input.RESET): State.TLS,
    (State.TLS, Input.TLS_COMPLETE): State.KEY_MESSAGE,
    (State.KEY_MESSAGE, Input.PEER_KEY_MESSAGE): State.DECISION,
    (State.DECISION, Input.ANSWER): State.ESTABLISHED,
    (State.AWAIT_RESET, Input.FAILURE): State.FAILED,
    (State.TLS, Input.FAILURE): State.FAILED,
    (State.KEY_MESSAGE, Input.FAILURE): State.FAILED,
    (State.DECISION, Input.FAILURE): State.FAILED,
    (State.ESTABLISHED, Input.FAILURE): State.FAILED,
}

RESETS = CLIENT_RESETS | {Opcode.CONTROL_HARD_RESET_SERVER_V2, Opcode.CONTROL_SOFT_RESET_V1}
# what a peer may have sent that we have not read yet; a TLS stream of this protocol never comes near
_MAX_UNREAD_TEXTS = 64
_TLS_OPCODES = frozenset({Opcode.CONTROL_V1, Opcode.CONTROL_WKC_V1})


@dataclass(frozen=True, slots=True)
class KeySessionSetup:
    """How one begins. `expect` are the resets that may answer; `first_id` is 1 after the stateless start.

    Shape: `payload_octets` is what fits into a control packet besides header, acknowledgements and protection.
    `appended_octets` is the room WKc takes in the packet it is appended to. `answers_when_told`: a TLS server's, whose
    own key message is sent by `answer`.
    """

    key_id: KeyId
    is_tls_client: bool
    own_message: KeyMessage = field(repr=False)
    expect: frozenset[Opcode]
    payload_octets: int
    timeout: float
    first_id: int = 0
    appended_octets: int = 0
    answers_when_told: bool = False


class KeySession:
    """Units: `now` in seconds. After FAILED only what is already queued (an alert) still goes out."""

    def __init__(self, setup: KeySessionSetup, tls: TlsEnd, now: float) -> None:
        self.setup = setup
        self.tls = tls
        self.started_at = now
        self.established_at: float | None = None
        self.state = State.AWAIT_RESET if setup.first_id == 0 else State.TLS
        self.failure: TlsFailed | None = None
        self.peer_message: KeyMessage | None = None
        self.texts: list[str] = []  # control messages not yet taken
        self.told: set[str] = set()  # progress its session has reported already
        self._send = SendWindow(setup.timeout, setup.first_id)
        self._receive = ReceiveWindow(setup.first_id)
        self._acks = AckLedger()
        self._stream = bytearray()  # TLS octets not yet cut into messages
        self._append_client_key = False

    @property
    def key_id(self) -> KeyId:
        return self.setup.key_id

    @property
    def is_established(self) -> bool:
        return self.state is State.ESTABLISHED

    @property
    def all_acknowledged(self) -> bool:
        return self._send.is_idle and not self._stream

    def send_reset(self, opcode: Opcode, payload: bytes, now: float) -> None:
        self._send.push(opcode, payload, now)

    def receive(self, body: ControlBody, opcode: Opcode, now: float) -> Drop | None:
        """Take one control packet's body, already authentic. Returns why it was dropped, if it was."""
        if body.acks:
            self._send.acknowledge(body.acks)
        if body.message_id is None:
            self._pump(now)
            return None
        if opcode in RESETS and body.message_id != 0:
            return Drop.UNEXPECTED
        if body.message_id == 0 and self.state is State.AWAIT_RESET and opcode not in self.setup.expect:
            return Drop.UNEXPECTED
        verdict = self._receive.accept(Message(body.message_id, opcode, body.payload))
        if verdict is Verdict.BEYOND:
            return Drop.BEYOND_WINDOW
        self._acks.note(body.message_id)
        while (message := self._receive.take()) is not None:
            self._deliver(message, now)
        self._pump(now)
        return None

    def answer(self, now: float) -> None:
        """Send the own key message, if it is held back."""
        if self.state is not State.DECISION:
            return
        self._guarded_write(self.setup.own_message.build())
        if self.state is State.DECISION:
            self._establish(now)
        self._pump(now)

    def send_text(self, text: str, now: float) -> None:
        """Send one control message; needs an established session."""
        if not self.is_established:
            return
        self._guarded_write(build_message(text))
        self._pump(now)

    def fail(self, failure: TlsFailed) -> None:
        if self.state is not State.FAILED:
            self.failure = failure
            self._step(Input.FAILURE)

    def bodies_to_send(self, acked_session_id: SessionId | None, now: float) -> list[tuple[Opcode, ControlBody]]:
        """What is due, acknowledgements included; an ACK of its own only if nothing else carries them."""
        self._cut(now)
        bodies = []
        for due in self._send.due(now):
            acks = self._acks.take(ACKS_IN_CONTROL) if acked_session_id is not None else ()
            session_id = acked_session_id if acks else None
            bodies.append((due.opcode, ControlBody(acks, session_id, due.message_id, due.payload)))
        while self._acks.is_due and acked_session_id is not None:
            bodies.append((Opcode.ACK_V1, ControlBody(self._acks.take(ACKS_IN_ACK), acked_session_id)))
        return bodies

    def next_at(self) -> float | None:
        return self._send.next_at()

    def _deliver(self, message: Message, now: float) -> None:
        if message.opcode in RESETS:
            if self.state is State.AWAIT_RESET:
                self._begin_tls(message, now)
        elif message.opcode in _TLS_OPCODES and self.state is not State.FAILED:
            self.tls.feed(message.payload)

    def _begin_tls(self, reset: Message, now: float) -> None:
        if reset.opcode is Opcode.CONTROL_HARD_RESET_SERVER_V2 and reset.payload:
            try:
                self._append_client_key = EarlyFlags.parse(reset.payload).resend_client_key
            except Malformed as error:
                self.fail(TlsFailed(RefusalReason.PROTOCOL_VIOLATION, str(error)))
                return
        self._step(Input.RESET)
        self._send.expedite(now)

    def _pump(self, now: float) -> None:
        """Let TLS do what it can: finish the handshake, read, and put out what it has to say."""
        try:
            if self.state is State.TLS and self.tls.drive():
                self._step(Input.TLS_COMPLETE)
                if self.setup.is_tls_client:
                    self.tls.write(self.setup.own_message.build())
            if self.state in (State.KEY_MESSAGE, State.ESTABLISHED):
                for record in self.tls.read_records():
                    self._read(record, now)
        except TlsFailed as failure:
            self.fail(failure)
        self._stream += self.tls.take_output()
        self._cut(now)

    def _read(self, record: bytes, now: float) -> None:
        if self.state is State.ESTABLISHED:
            room = _MAX_UNREAD_TEXTS - len(self.texts)
            self.texts += parse_messages(record)[:room]
            return
        if self.state is not State.KEY_MESSAGE:
            return
        try:
            self.peer_message = KeyMessage.parse(record, from_client=not self.setup.is_tls_client)
        except Malformed as error:
            raise TlsFailed(RefusalReason.PROTOCOL_VIOLATION, str(error)) from None
        self._step(Input.PEER_KEY_MESSAGE)
        if self.setup.answers_when_told:
            return
        if not self.setup.is_tls_client:
            self.tls.write(self.setup.own_message.build())
        self._establish(now)

    def _establish(self, now: float) -> None:
        self._step(Input.ANSWER)
        self.established_at = now

    def _guarded_write(self, message: bytes) -> None:
        try:
            self.tls.write(message)
        except TlsFailed as failure:
            self.fail(failure)

    def _cut(self, now: float) -> None:
        """Fill the send window from the TLS stream."""
        while self._stream and self._send.has_room:
            opcode, octets = Opcode.CONTROL_V1, self.setup.payload_octets
            if self._append_client_key:
                # only message 1 carries WKc: a server that keeps no state needs it again there
                opcode, octets = Opcode.CONTROL_WKC_V1, max(0, octets - self.setup.appended_octets)
                self._append_client_key = False
            self._send.push(opcode, bytes(self._stream[:octets]), now)
            del self._stream[:octets]

    def _step(self, received: Input) -> None:
        following = TRANSITIONS.get((self.state, received))
        if following is None:
            raise RuntimeError(f"{received.value} while {self.state.value}")
        self.state = following
