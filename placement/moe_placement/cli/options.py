"""Options that several commands share."""

import argparse
from pathlib import Path


def add_model_and_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a shipped name (deepseek_v3), a Hugging Face name, a checkpoint folder or a "
        "config.json",
    )
    cluster = parser.add_mutually_exclusive_group(required=True)
    cluster.add_argument(
        "--cluster", type=Path, metavar="FILE", help="YAML file; see configs/clusters/"
    )
    cluster.add_argument(
        "--devices",
        metavar="NAME:COUNT[@PRICE],...",
        help="groups of devices from the catalogue, as h200_sxm:32,atlas_a2_376t:64@2.5",
    )


def add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload", "a trace, or figures in the mean")
    group.add_argument(
        "--trace", type=Path, metavar="FILE", help="requests: Azure's CSV or Mooncake's JSON lines"
    )
    group.add_argument("--rate", type=float, metavar="N", help="requests a second, Poisson")
    group.add_argument(
        "--concurrency", type=int, metavar="N", help="clients in a loop, instead of --rate"
    )
    group.add_argument("--prompt-tokens", type=float, metavar="N")
    group.add_argument("--output-tokens", type=float, metavar="N")
    group.add_argument(
        "--prompt-cv", type=float, metavar="X", help="standard deviation over mean; 0 is all alike"
    )
    group.add_argument("--output-cv", type=float, metavar="X")
    group.add_argument(
        "--cached-share", type=float, metavar="X", help="of prompt tokens in the prefix cache"
    )
    group.add_argument(
        "--tokens-per-step", type=float, metavar="X", help="above 1 with speculation"
    )
    group.add_argument(
        "--slo",
        default="",
        metavar="ttft=2s,tpot=50ms,percentile=0.95",
        help="service levels, which must hold at the percentile (0.5 where it is left out)",
    )
    group.add_argument(
        "--load",
        metavar="[KIND:]FILE",
        help="expert load, even where there is none: a trace (.npz), or another engine's dumps, as "
        "vllm:FILE,FILE or sglang:FILE or adrs:FILE",
    )


def add_constraints(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits of the plan")
    group.add_argument(
        "--weights",
        default="",
        metavar="FORMAT | GROUP=FORMAT,...",
        help="weight formats allowed, of all groups or each, as hopper=fp8,ascend=int8; several "
        "as fp8|bfloat16",
    )
    group.add_argument("--phases", choices=("any", "together", "apart"), default="any")
    group.add_argument("--mixing", choices=("any", "never", "always"), default="any")
    group.add_argument(
        "--redundancy", type=float, metavar="X", help="most replicas, as a share of the experts"
    )
    group.add_argument(
        "--spread",
        action="store_true",
        help="no single failure domain holds all replicas of an expert",
    )
    group.add_argument("--max-context", type=int, metavar="TOKENS", help="the model's by default")
    group.add_argument("--memory-fraction", type=float, metavar="X")
    group.add_argument("--max-tokens-per-step", type=int, metavar="N", help="of one rank")
    group.add_argument("--max-sequences", type=int, metavar="N", help="of one rank")
    group.add_argument("--old", type=Path, metavar="PLAN.json", help="the plan in force")
    group.add_argument(
        "--move", metavar="SIZE", help="most bytes of experts to load, coming from --old"
    )
    group.add_argument(
        "--runnable", action="store_true", help="only what this version of moe_serve serves"
    )


def add_search(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("search and output")
    group.add_argument(
        "--coefficients", default="shipped", metavar="FILE", help="of the cost model"
    )
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--json", action="store_true", help="print JSON")


def add_files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files to write")
    group.add_argument("--report", type=Path, metavar="FILE.html")
    group.add_argument("--plot", type=Path, metavar="FILE.png")
    group.add_argument(
        "--output",
        type=Path,
        metavar="FILE.yaml",
        help="a moe_serve config, and beside it the plan as FILE.plan.json",
    )


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--export",
        metavar="KIND:FILE",
        help="the placement for another engine, whose replicas share their rows evenly: "
        "eplb:FILE.npz, tensorrt-llm:FILE.yaml or vllm-ascend:expert_map.json",
    )
