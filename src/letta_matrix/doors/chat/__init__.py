"""What people can tell the bridge itself to do: `!new`, `!status`, `!approve` and the like."""
