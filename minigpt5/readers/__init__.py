"""What reads prompts and pictures, and speaks."""
