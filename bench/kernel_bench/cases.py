"""All cases of the bench, family by family."""

from kernel_bench import contrastive_cases, encoding_cases, group_cases, pair_cases

CASES = (
    *encoding_cases.CASES,
    *contrastive_cases.CASES,
    *pair_cases.CASES,
    *group_cases.CASES,
)
