"""One reading of how the product is, and what of it needs a person.

`reading.load_reading` reads the database and this machine once; `action_items.find_action_items`
decides. Overview, System health, `whet status`, `whet doctor` and `/readyz` all show their result.
"""
