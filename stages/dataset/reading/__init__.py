"""Reading the user's folder of pictures: its files and their labels."""
