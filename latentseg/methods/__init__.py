"""The methods: one file each on the contract of `base`, and what each of them is in `table`."""
