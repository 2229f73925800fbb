"""Studies of a language model that is tuned by reward."""
