"""The web pages that people look at: HTML built on the server from the API's documents alone; they decide nothing."""
