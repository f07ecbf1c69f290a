/** Registers the service worker. The first visit is loaded once more by it, so that the model may use several threads. */

const TRIED = "voxrill.isolated";

if ("serviceWorker" in navigator) {
  navigator.serviceWorker.register(new URL("../service_worker.js", import.meta.url)).then(
    async () => {
      await navigator.serviceWorker.ready;
      if (crossOriginIsolated || sessionStorage.getItem(TRIED)) return;
      sessionStorage.setItem(TRIED, "yes"); // a browser that refuses all the same runs the model with one thread
      location.reload();
    },
    () => {}, // without it the page works, but not offline
  );
}
