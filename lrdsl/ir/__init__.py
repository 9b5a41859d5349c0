"""The languages between the stages: Spec, Plan, Program, Kernel, Source."""
