# Puma has no option for this.
persistent_timeout 2
