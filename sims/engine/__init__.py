"""The engine: one abstraction (`experiment`), its sweep (`run`, `store`, `devices`) and its verdict (`agreement`)."""
