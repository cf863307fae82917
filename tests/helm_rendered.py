"""Run by the Python of build/helm (`scripts/helm`): lints and renders a chart, and checks what
comes of it against the schemas of Kubernetes. Each line that it reads is JSON, [chart, values], and
it answers with one."""

import json
import sys
from typing import Any


def main() -> None:
    import helm_python  # pyright: ignore[reportMissingImports]
    import kubernetes_validate  # pyright: ignore[reportMissingImports]
    import yaml

    helm: Any = helm_python
    schemas: Any = kubernetes_validate
    for line in sys.stdin:
        path, values = json.loads(line)
        told: dict[str, Any] = {"lint": helm.lint(path, values, strict=True)["messages"]}
        try:
            files: dict[str, str] = helm.Chart.load(path).render(
                values, name="bridge", namespace="chat"
            )
        except helm.HelmRenderError as error:
            told["fault"] = str(error)
            files = dict[str, str]()
        told["notes"] = "".join(text for name, text in files.items() if name.endswith("NOTES.txt"))
        told["objects"] = [
            one
            for name, text in sorted(files.items())
            if name.endswith(".yaml")
            for one in yaml.safe_load_all(text)
            if one
        ]
        for one in told["objects"]:
            if one["kind"] != "ServiceMonitor":
                for version in ("1.25", "1.37"):
                    schemas.validate(one, version, strict=True)
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
