"""What was answered lately, by template: entries, what they have to prove, and what is kept of them."""
