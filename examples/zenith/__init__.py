"""The Zenith support desk: an invented world whose answers can be checked fact by fact."""
