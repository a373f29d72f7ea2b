// Validates objects of the Prometheus operator (JSON, one a line, on stdin) by the schemas of its definitions; one line a mistake.
// The first argument is the folder in which npm installed the package.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(`${process.argv[2]}/`));
const kinds = await import(
    pathToFileURL(require.resolve("@kubernetes-models/prometheus-operator/package.json").replace("package.json", "monitoring.coreos.com/v1/index.js"))
);
for await (const line of createInterface({ input: process.stdin })) {
    const object = JSON.parse(line);
    try {
        new kinds[object.kind](object).validate();
    } catch (error) {
        console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
    }
}
