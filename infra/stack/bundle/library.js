// What a patient's page uses of cornerstone3D, as one file: the page's own code is not bundled.
export {
  cache,
  Enums,
  imageLoader,
  init,
  metaData,
  RenderingEngine,
  utilities,
} from "@cornerstonejs/core";
export { transfer, wrap } from "comlink";
