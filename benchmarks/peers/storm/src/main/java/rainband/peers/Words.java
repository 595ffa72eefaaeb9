package rainband.peers;

import java.util.function.Consumer;

/** Words as Python's str.split() finds them, without a regular expression. */
final class Words {
  private Words() {}

  static boolean isSpace(char c) {
    if (c < 0x80) {
      return c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
    }
    return c == 0x85 || Character.isSpaceChar(c);
  }

  static void each(String line, Consumer<String> use) {
    int length = line.length();
    int i = 0;
    while (true) {
      while (i < length && isSpace(line.charAt(i))) {
        i++;
      }
      if (i == length) {
        return;
      }
      int start = i;
      while (i < length && !isSpace(line.charAt(i))) {
        i++;
      }
      use.accept(line.substring(start, i));
    }
  }

  static int count(String line) {
    int[] n = new int[1];
    each(line, word -> n[0]++);
    return n[0];
  }
}
