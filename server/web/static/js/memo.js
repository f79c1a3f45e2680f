// Skips drawing a component whose properties are the same as before.
import { Component, h } from "preact";

export function memo(render) {
  return class Memo extends Component {
    shouldComponentUpdate(next) {
      const previous = this.props;
      return Object.keys(next).some((key) => next[key] !== previous[key]);
    }

    render(props) {
      return h(render, props);
    }
  };
}
