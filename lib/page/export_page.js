// The page of `export-page`: its one model is in the file, and computed by the file.
import { startPage } from "./app.js";
import { localBackend } from "./local.js";
import { bytesOfBase64, readTensors } from "./tensors.js";

const file = JSON.parse(document.getElementById("model-file").textContent);
const weights = bytesOfBase64(document.getElementById("model-weights").textContent);
startPage(localBackend(file, readTensors(file.tensors, weights)));
