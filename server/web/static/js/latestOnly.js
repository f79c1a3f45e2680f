// Of overlapping fetches of one thing the newest counts: an older one's answer may come later and know less.

/**
 * A function that runs `fetchIt()` and gives what came to `take(found, error)`. When it is called again before
 * that, the earlier call takes nothing and ends with the later one.
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
