"""The page that people look at: HTML of the API's documents, rendered on the server; nothing in it decides anything."""
