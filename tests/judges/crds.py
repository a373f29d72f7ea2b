"""The operator's kinds, PodMonitor and PrometheusRule, by the schemas and types that are made from its definitions.

Schemas let pass what they don't know, as the API server does, which leaves it out without a word. So the names of fields are
compared with TypeScript's interfaces of the same package.
"""

import json
import re
from pathlib import Path

from report import JUDGES, run

KINDS = JUDGES / "node_modules" / "@kubernetes-models" / "prometheus-operator" / "monitoring.coreos.com" / "v1"
MODEL = Path(__file__).with_suffix(".mjs")


def mistakes(documents):
    """What is wrong with objects of the operator."""
    judged = run("node", MODEL, JUDGES, input="\n".join(map(json.dumps, documents)), timeout=60)
    if judged.returncode != 0:
        return [f"node {MODEL.name}: {judged.stderr}"]
    unknown = [
        f"{document['kind']} {document['metadata']['name']}: {path}"
        for document in documents
        for path in strangers(KINDS / f"{document['kind']}Spec.d.ts", document["spec"], "spec")
    ]
    return judged.stdout.splitlines() + unknown


def strangers(file, value, path):
    """Fields of `value` that the interface in `file` does not have."""
    fields = interface(file)
    for name, below in value.items() if fields else ():
        if name not in fields:
            yield f"{path}.{name} is no field"
            continue
        for at, item in enumerate(below if isinstance(below, list) else [below]):
            if isinstance(item, dict) and fields[name] is not None:
                yield from strangers(fields[name], item, f"{path}.{name}[{at}]")


def interface(file):
    """Each field of an interface, with the file of its own interface where the package has one."""
    text = re.sub(r"/\*.*?\*/", "", file.read_text(), flags=re.S)
    imports = {
        name: file.parent / source.replace(".js", ".d.ts")
        for name, source in re.findall(r'import \{ (\w+)[^}]*\} from "(\./[^"]+)"', text)
    }
    found = re.search(r"export interface \w+(?: extends ([\w, ]+))? \{(.*?)\n\}", text, flags=re.S)
    if not found:
        return {}
    fields = {}
    for parent in (found[1] or "").split(","):
        if parent.strip() in imports:
            fields.update(interface(imports[parent.strip()]))
    for name, kind in re.findall(r'^    "(\w+)"\??: (.*)$', found[2], flags=re.M):
        fields[name] = next((source for known, source in imports.items() if re.search(rf"\b{known}\b", kind)), None)
    return fields
