"""The antiprompt bank: what is known to be harmful, and how to recognise what resembles it."""
