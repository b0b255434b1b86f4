"""How the queue's table came to be, step by step; Alembic runs what a database lacks."""
