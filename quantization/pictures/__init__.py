"""The user's pictures: found, labelled, decoded, made to fit the model."""
