"""What can be wrong with a backup, or with the place that it is taken of or put back into."""


class BackupError(Exception):
    """No backup was made, or nothing was put back; one line that says why."""
