"""What waits for a person: kept in a database, claimed by one, answered, and the answers told to everybody."""
