"""What happens beside training: checkpoints, averages, alarms, samples, preemption."""
