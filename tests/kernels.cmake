# kernels/: the pure rules, and the CPU kernels against an independent reference.
gradwarden_test(numerics_test
  SOURCES unit/numerics_clip_test.cc unit/numerics_decision_test.cc unit/numerics_rules_test.cc unit/numerics_spike_rule_test.cc
          unit/numerics_statistics_test.cc
  LIBS gradwarden_numerics
  LABELS unit)

gradwarden_test(kernel_test
  SOURCES property/kernel_parallel_for_test.cc property/kernel_reference.cc
          property/kernel_scale_test.cc property/kernel_statistics_test.cc
  LIBS gradwarden_kernels_cpu hwy::hwy Threads::Threads
  LABELS property)
