"""Time to list the recordings of a BIDS dataset, against ancpbids alone.

Run: python bench/bids_index.py [N_SUBJECTS] [N_RUNS]

The tree is generated: empty NIfTI files with events and a sidecar each. The script
checks that both find the same files, and prints the best of three.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import ancpbids

from neuromm.io.bids import open_dataset


def make_tree(root, n_subjects, n_runs):
    description = {"Name": "bench", "BIDSVersion": "1.11.0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    for subject in range(1, n_subjects + 1):
        folder = root / f"sub-{subject:03d}" / "func"
        folder.mkdir(parents=True)
        for run in range(1, n_runs + 1):
            stem = f"sub-{subject:03d}_task-film_run-{run:02d}"
            for end in ("bold.nii.gz", "bold.json", "events.tsv"):
                (folder / f"{stem}_{end}").touch()


def with_ancpbids(root):
    options = ancpbids.DatasetOptions(ignore_pickle_file=True)
    dataset = ancpbids.load_dataset(str(root), options)
    files = dataset.query(return_type="files", suffix="bold", extension=".nii.gz")
    return {str(path) for path in files}


def with_neuromm(root):
    return {str(path) for path in open_dataset(root).table["path"]}


def with_neuromm_one_subject(root):
    study = open_dataset(root, participant_label="001")
    return {str(path) for path in study.table["path"]}


def best_of(function, root, n_repeats=3):
    seconds = []
    for _ in range(n_repeats):
        start = time.perf_counter()
        found = function(root)
        seconds.append(time.perf_counter() - start)
    return min(seconds), found


def main():
    n_subjects, n_runs = (int(n) for n in [*sys.argv[1:], 200, 5][:2])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_tree(root, n_subjects, n_runs)
        globbed = {str(path) for path in root.rglob("*_bold.nii.gz")}
        alone_s, alone = best_of(with_ancpbids, root)
        ours_s, ours = best_of(with_neuromm, root)
        one_s, one = best_of(with_neuromm_one_subject, root)
    if not alone == ours == globbed:
        raise SystemExit("the two do not find the same files")
    if len(one) != n_runs:
        raise SystemExit(f"expected {n_runs} runs of one subject, got {len(one)}")
    print(f"{n_subjects} subjects x {n_runs} runs, {3 * len(ours)} files; same files")
    print(f"{'':32}{'seconds':>8}{'files':>8}")
    print(f"{'ancpbids, query':32}{alone_s:8.2f}{len(alone):8}")
    print(f"{'open_dataset':32}{ours_s:8.2f}{len(ours):8}")
    print(f"{'open_dataset, one participant':32}{one_s:8.2f}{len(one):8}")


if __name__ == "__main__":
    main()
