"""All cases of the bench, family by family."""

from kernel_bench import encoding_cases

CASES = (*encoding_cases.CASES,)
