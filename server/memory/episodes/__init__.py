"""Past chats, turn by turn, found again by words, meaning, speaker and date. Knows nothing of prompts or HTTP."""
