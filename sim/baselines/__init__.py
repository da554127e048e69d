"""Other systems' policies, one file each, as strong as we can make them; each says what its original does, and what it
was given beside that. All get batching and the joining of a load under way, unless they say so."""
