-- What moves stock positions is handed over as it is, and needs no table to be like.

DROP TABLE stock_move;
