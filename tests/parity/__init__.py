"""The comparison with numbers recorded from the released code."""
