// Unpacks the viewer and the scene that this page holds, and draws the scene as scene3d does.
// window.scene3d.ready settles with the viewer's handle once the first whole frame is there.

const config = JSON.parse(document.getElementById("config").textContent);
const parameters = new URL(location.href).searchParams;

// The list of keys would cover half of a phone; the keyboard button opens it.
function keepHelpClosed() {
  try {
    if (localStorage.getItem("controlsPanelOpen") === null) localStorage.setItem("controlsPanelOpen", "false");
  } catch {
    // Storage is switched off: then the list is open.
  }
}

async function unpack(id) {
  const element = document.getElementById(id);
  const response = await fetch("data:application/octet-stream;base64," + element.textContent.trim());
  element.remove();
  return response.blob();
}

async function loadViewer() {
  const packed = await unpack("viewer");
  const script = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).blob();
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  try {
    return (await import(url)).createViewer;
  } finally {
    URL.revokeObjectURL(url);
  }
}

function drawAsRendered(app) {
  const splats = app.scene.gsplat;
  splats.dataFormat = "large"; // half floats in between, not 8 bits
  splats.radialSorting = false; // by depth, as it was fitted
  splats.minPixelSize = 0; // what is small counts too
  splats.minContribution = 0;
  app.root.on("childinsert", (node) => {
    if (node.name === "gsplat") node.setLocalRotation(...config.rotation);
  });
}

async function start() {
  keepHelpClosed();
  const canvas = document.createElement("canvas");
  if (!canvas.getContext("webgl2")) throw new Error("This browser offers no WebGL 2, or it is switched off.");
  const [createViewer, scene] = await Promise.all([loadViewer(), unpack("scene")]);
  document.body.classList.add("loading");
  const contentUrl = URL.createObjectURL(scene);
  const handle = await createViewer({
    container: document.body,
    settings: config.settings,
    contentUrl,
    contentFilename: config.file,
    renderer: "webgl",
    aa: config.antialiased,
    noanim: true,
    ui: !parameters.has("noui"),
  });
  drawAsRendered(handle.app);
  await new Promise((resolve, reject) => {
    handle.events.once("loaded:changed", resolve);
    handle.app.assets.on("error", (problem) => reject(new Error(`the scene inside is damaged (${problem?.message ?? problem}).`)));
  });
  URL.revokeObjectURL(contentUrl);
  handle.state.cameraMode = "orbit";
  document.body.classList.remove("loading");
  const poster = document.getElementById("poster");
  poster.classList.add("done");
  setTimeout(() => poster.remove(), 400);
  return handle;
}

function explain(error) {
  const message = document.getElementById("message");
  message.textContent = `The scene cannot be shown in 3D: ${error?.message ?? error} The picture behind is its first view.`;
  message.hidden = false;
  document.body.classList.remove("loading");
  document.querySelector(".sse-viewer")?.remove();
}

window.scene3d = { ready: start() };
window.scene3d.ready.catch(explain);
