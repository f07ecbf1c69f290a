"""What a device is looked after with: tuning, snapshots, golden vectors, smoke runs, doctor, long measurements."""
