"""What comes with EngramDB beside the library: its demo."""
