// The page that `serve` shows: its models are computed by the server.
import { startPage } from "./app.js";
import { serverBackend } from "./server.js";

startPage(serverBackend());
