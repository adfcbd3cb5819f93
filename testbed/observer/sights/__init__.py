"""What a message of a known protocol tells, entered into the findings with the packets and the filter that prove it."""
