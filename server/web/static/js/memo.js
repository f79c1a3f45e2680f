// Skips rendering a component whose props are shallowly equal to the previous ones.
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
