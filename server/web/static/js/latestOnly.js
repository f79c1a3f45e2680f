// Latest-wins fetches: of overlapping requests for the same thing only the last one's result is used.

/**
 * A function that runs `fetcher()` and calls `onResult(result, error)`. When it is called again before that,
 * the earlier call drops its result and resolves with the later one.
 */
export function latestOnly(fetcher, onResult) {
  let latestId = 0;
  let latestRun = null;
  const run = async (requestId) => {
    let result = null;
    let failure = null;
    try {
      result = await fetcher();
    } catch (error) {
      failure = error;
    }
    if (requestId === latestId) onResult(result, failure);
    else await latestRun;
  };
  return () => (latestRun = run(++latestId));
}
