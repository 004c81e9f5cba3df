// The stream of server-sent events, made anew whenever it ends.

const RETRY_MS = 500;
const SILENCE_MS = 5000;

export function follow({ onHello, onTick, onEvent, onLost }) {
  let source = null;
  let silence = 0;
  let retry = 0;

  function lose() {
    source?.close();
    source = null;
    clearTimeout(silence);
    clearTimeout(retry);
    onLost();
    retry = setTimeout(open, RETRY_MS);
  }

  function hear(handle) {
    return (message) => {
      clearTimeout(silence);
      silence = setTimeout(lose, SILENCE_MS);
      handle(JSON.parse(message.data));
    };
  }

  function open() {
    source = new EventSource("stream");
    source.addEventListener("hello", hear(onHello));
    source.addEventListener("tick", hear(onTick));
    source.addEventListener("event", hear(onEvent));
    source.addEventListener("error", lose);
    clearTimeout(silence);
    silence = setTimeout(lose, SILENCE_MS);
  }

  // A page in the background may have been frozen for hours; what it shows is old.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && source?.readyState === EventSource.CLOSED) lose();
  });
  open();
}
