"""Networks as frozen records: `init` makes parameters, `features` and `head` are pure functions of them. One network a file."""
