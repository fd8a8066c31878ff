UNREAD_FORMATS: dict[str, str] = {}
