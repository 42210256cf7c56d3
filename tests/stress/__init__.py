"""The long campaigns of `make stress`: each for as long as it may take, with figures at the end."""
