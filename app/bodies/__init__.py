"""The JSON of the API; `of` builds a body from an entity."""
