"""The antiprompts note, claim by claim: what a person can do because of it, shown on a gateway as people have it."""
