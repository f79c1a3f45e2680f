// Of overlapping fetches of one thing the newest counts: an older one's answer may come later and know less.

/**
 * A function that runs `fetchIt()` and gives what came to `take(found, error)`. When it is called again before
 * that, the earlier call takes nothing and ends with the later one.
 */
export function newest(fetchIt, take) {
  let calls = 0;
  let running = null;
  const run = async (mine) => {
    let found = null;
    let failure = null;
    try {
      found = await fetchIt();
    } catch (error) {
      failure = error;
    }
    if (mine === calls) take(found, failure);
    else await running;
  };
  return () => (running = run(++calls));
}
