"""What a run on a card has besides figures: the card, correctness before speed, and a page to send back."""
